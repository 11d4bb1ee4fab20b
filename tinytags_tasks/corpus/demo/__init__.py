"""The demo corpora: drawn shapes, and CIFAR-10 where its files are at hand."""

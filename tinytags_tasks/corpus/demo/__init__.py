"""The demo corpora: photographs, CIFAR-10, or drawn shapes."""

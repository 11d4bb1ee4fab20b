"""The engines that TinyTags talks to, one client each."""

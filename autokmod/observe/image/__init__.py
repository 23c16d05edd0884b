"""What is inside an initrd image, without its generator."""

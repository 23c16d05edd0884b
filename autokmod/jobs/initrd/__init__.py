"""The last step of a kernel: its initrd carries what stands on disk, seen by looking into it."""

"""autokmodd: main loop, watcher, D-Bus service."""

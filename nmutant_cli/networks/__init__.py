"""The networks: how they are built and trained, loaded and asked. Keras 3 only."""

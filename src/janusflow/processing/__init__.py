"""From messages and pictures to tensors: chat templates, picture preprocessing, the processor."""

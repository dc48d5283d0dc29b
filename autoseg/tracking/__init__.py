"""Who is told about a running search: terminal, log file, TensorBoard, W&B; each an observer of the loop."""

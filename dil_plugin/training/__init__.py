"""What a training run consists of beside the method, for any framework: numbers that are watched, steps left out."""

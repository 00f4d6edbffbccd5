"""What is known about networks that restore images, whatever framework they are of."""

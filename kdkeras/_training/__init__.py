"""The parts of the distiller's training step, each an idea of its own. Not a public module."""

"""The experiments of Lai, Domke & Sheldon (2024) once more; see docs/paper.md."""

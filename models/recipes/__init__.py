"""How the files of the zoo were made: data preparation, network definitions, training and export (needs PyTorch)."""

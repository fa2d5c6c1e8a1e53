"""From bytes to characters: encodings, and checks of what is no text."""

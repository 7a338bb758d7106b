"""Small repositories with a bug to be mended."""

"""What tests of this project, and of projects built on it, share."""

"""Where delivered bytes are, and bytes to lines; imports nothing of the tap but retry, threads, clock and errors."""

"""The SDK's tap and streams as this tap uses them; RECORD and BATCH output. May import rows, files and lower parts."""

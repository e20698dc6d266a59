"""What every room uses: errors, checks, files, hardware, the console. It imports no other room."""

"""What shipway does: one function a command, called by the command line and by programs alike."""

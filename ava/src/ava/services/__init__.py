"""What AVA does, apart from how it is asked: booking, importing, reporting."""

"""What mlauth knows of Acme."""

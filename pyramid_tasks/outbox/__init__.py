"""From a call to the broker by way of the database of the application."""

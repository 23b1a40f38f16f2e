"""Delivery by way of the database: the table, its rows, the relay that sends them."""

"""What commands tell: tables, short summaries and JSON. Nothing here computes; nothing here prints."""

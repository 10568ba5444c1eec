"""Numbers from bits: arrays in, arrays out. Nothing here knows a record or imports torch."""

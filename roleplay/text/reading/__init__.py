"""What people bring, as plain values: bytes to text, files to records, records to one form. It knows no Row."""

"""What every room stands on: errors, records, folders, names, text, estimates."""

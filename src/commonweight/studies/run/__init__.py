"""One kernel of studies: folder, record, lock, outlook."""

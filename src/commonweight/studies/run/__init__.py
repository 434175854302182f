"""One kernel of studies: plan, folder, record, lock, outlook; it knows no study."""

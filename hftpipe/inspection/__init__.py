"""Looking at one account, one transaction, one entry, and at what is applied now: read-only, beside any worker."""

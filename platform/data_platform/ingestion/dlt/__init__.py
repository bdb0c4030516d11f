"""Resources of dlt (dlthub.com) as a source: what other people wrote to read a system, landed by our own load."""

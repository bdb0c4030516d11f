"""HTTP APIs that answer in JSON: options, session, pages, values, cursors, and the source made of them."""

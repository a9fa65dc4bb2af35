"""The AiiDA plugin of matcompute."""

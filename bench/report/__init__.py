"""From rows and series to what people and programs read: medians, a table, JSON, plots."""

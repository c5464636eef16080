"""What a run will do: settings with their types, ranges, defaults and help; the registries. Free of torch."""

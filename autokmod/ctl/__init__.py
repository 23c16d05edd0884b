"""autokmodctl: what people and scripts ask."""

"""Every touch of the world, one module per system; knows neither workflows nor HTTP requests."""

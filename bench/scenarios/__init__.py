"""One module for each scenario, with a function `measure(stage)` that yields rows and series; `bench.scenario` lists them."""

"""One module for each scenario; `fleet.scenario.NAMES` lists them."""

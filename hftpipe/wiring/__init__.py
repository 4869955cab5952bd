"""Where adapters are built and put together: the only rooms that know both protocols and what stands behind them."""

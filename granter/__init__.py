"""The granter: admission for whole tables, over however many routers."""

"""PromQL as data: one file a query, per mesh; importable as meshscope.queries."""

"""What the charts ship that is made from code: the definition, RBAC rules, settings, schema, dashboard, tables."""

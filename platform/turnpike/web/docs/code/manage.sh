curl %%base_url%%/api/v1/keys \
  -H "x-api-key: $TURNPIKE_MANAGEMENT_KEY" \
  -H "idempotency-key: $(uuidgen)" \
  -H "content-type: application/json" \
  -d '{"name": "nightly-job", "monthly_budget": "25.00"}'

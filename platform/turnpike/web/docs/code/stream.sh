curl -N %%base_url%%/v1/messages \
  -H "x-api-key: $ANTHROPIC_API_KEY" \
  -H "anthropic-version: 2023-06-01" \
  -H "content-type: application/json" \
  -d '{"model": "%%model%%", "max_tokens": 256, "stream": true,
       "messages": [{"role": "user", "content": "Hello"}]}'

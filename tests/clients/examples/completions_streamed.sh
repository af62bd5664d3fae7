curl -N -X POST "https://your-kitemesh.example.com/v1/chat/completions" \
-H "Authorization: Bearer km_your_token_here" \
-H "Content-Type: application/json" \
-d '{
"model": "group:123e4567-e89b-12d3-a456-426614174000",
"stream": true,
"messages": [
{
"role": "user",
"content": "Prepare a detailed response."
}
]
}'

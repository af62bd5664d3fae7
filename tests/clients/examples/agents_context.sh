curl -X POST https://your-domain.com/api/agents/{id}/chat \
-H "Content-Type: application/json" \
-d '{
"message": "What is my order status?",
"context": {
"customer_id": "cust-123",
"order_id": "order-456"
}
}'

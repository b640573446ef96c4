{{ config(enabled='purchases' in var('braze_streams')) }}
{{ braze.current_rows('purchases') }}

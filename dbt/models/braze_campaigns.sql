{{ config(enabled='campaigns_received' in var('braze_streams')) }}
{{ braze.current_rows('campaigns_received') }}

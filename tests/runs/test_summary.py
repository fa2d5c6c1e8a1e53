from lightlm.runs.summary import report_values


def notices_of(*, factor: float, num_steps: int = 500) -> tuple[str, ...]:
    """Return what the report of a run says beside its figures."""
    values = report_values(
        {
            "plan": {
                "trainer": {"batch_tokens": 1000},
                "predicted_low": 1,
                "predicted_high": 2,
                "num_parameters": 3,
            },
            "score": {"is_whole": True, "num_bytes": 10, "bits_per_byte": 2.0},
            "model_name": "lightlm",
            "model_version": "1",
            "dataset": {"notice": ""},
            "started_from": "scratch",
            "tokens": 1000 * num_steps,
            "ledger": {},
            "elapsed_seconds": 1.0,
            "budget_seconds": 1.0,
            "shape": "",
            "promotion": "",
            "final_learning_rate_factor": factor,
        }
    )

    return tuple(values["notices"])


def test_a_run_that_ended_annealed_says_nothing_of_its_learning_rate():
    assert notices_of(factor=0.002) == ()


def test_a_run_that_ended_unannealed_says_so_with_the_rate_it_ended_at():
    (notice,) = notices_of(factor=0.94)
    assert "94% of its peak" in notice
    assert "the same command again" in notice


def test_the_last_step_of_few_is_a_large_part_of_the_schedule_and_no_notice():
    assert notices_of(factor=0.05, num_steps=20) == ()

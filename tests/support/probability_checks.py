"""The tests of samples, divergences and normalisation, as `mistakes` puts them before wrong probabilities.

Each raises AssertionError where it fails. They are tests of the suite, or those of its examples that take no time.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the test files are
sys.path.append(str(Path(__file__).parents[2] / "examples"))

import double_well
import test_adversarial_ops
import test_boltzmann
import test_cusps
import test_diffusion
import test_diffusion_ops
import test_drift
import test_energy
import test_energy_ops
import test_evaluate
import test_hierarchical
import test_langevin
import test_latent
import test_likelihood
import test_pair_features
import test_partition
import test_path_posterior
import test_pixel_mixture
import test_potentials
import test_quantum_systems
import test_sde

from npvae.ops import boltzmann, partition


def moments_of_samples():
    test_latent.test_samples_have_the_posterior_mean_and_variance(1.5, -2.0)


def KL_by_quadrature():
    test_latent.test_kl_is_the_integral_of_q_log_q_over_p(1.5, -2.0)


def bernoulli_sums_to_1():
    test_likelihood.test_bernoulli_likelihood_sums_to_one("float64")


def bernoulli_mean_by_enumeration():
    test_likelihood.test_bernoulli_mean_is_the_mean_of_the_likelihood()


def gaussian_integrates_to_1():
    test_likelihood.test_gaussian_likelihood_integrates_to_one_over_a_plane(0.3)


def ELBO_of_the_exact_posterior():
    """−loss = log p(x) for the linear Gaussian model. Its nll is quadratic in eps: eps = ±1 is an exact quadrature."""
    model, x, log_p = test_evaluate.linear_gaussian()
    signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    eps = np.repeat(signs[:, None], len(x), axis=1)  # (S, B, L)
    terms, _ = model.forward(x, eps)
    assert abs(-terms.loss - log_p.mean()) < 1e-10


def IWAE_of_the_exact_posterior():
    """−loss = log p(x) of every sample for the linear Gaussian model: all importance weights are p(x)."""
    model, x, log_p = test_evaluate.linear_gaussian()
    for S in (1, 5):
        terms, _ = model.forward(x, np.random.default_rng(0).standard_normal((S, len(x), model.n_latent)), objective="iwae")
        assert abs(-terms.loss - log_p.mean()) < 1e-10


def exact_posterior_of_a_chain():
    test_hierarchical.test_at_the_exact_posterior_every_weight_is_the_closed_form_of_log_p()


def moments_of_a_chain():
    test_hierarchical.test_the_latents_of_a_datum_are_those_of_the_posterior()


def latents_of_a_diffusion():
    test_diffusion_ops.test_the_deterministic_step_keeps_data_and_noise()
    test_diffusion_ops.test_the_step_back_is_bayes_rule()
    test_diffusion.test_the_elbo_of_the_best_linear_denoiser_is_the_closed_form()


def terms_of_a_diffusion():
    test_diffusion_ops.test_a_denoising_term_is_the_divergence_of_two_steps_back()
    test_diffusion_ops.test_prior_terms_are_the_divergences_from_the_standard_normal()
    test_diffusion_ops.test_gaussian_reconstruction_is_the_mean_of_the_density()
    test_diffusion_ops.test_grey_levels_have_probabilities_that_add_up_to_one(-9.0, "float64")


def both_decompositions_of_a_diffusion():
    test_diffusion.test_both_decompositions_have_the_same_mean("linear", "gaussian")


def prior_of_a_pixel():
    test_pixel_mixture.test_the_prediction_is_the_mean_of_the_noise(-11.0)
    test_pixel_mixture.test_the_prediction_is_the_mean_of_the_noise(-2.0)


def free_energies_of_a_machine():
    for kind in ("binary", "gaussian"):
        test_boltzmann.test_the_free_energy_sums_over_all_hidden_states(kind, "float64")
        test_boltzmann.test_the_centred_energy_is_that_of_the_machine_up_to_a_constant(kind)


def gibbs_sampling():
    test_boltzmann.test_gibbs_sampling_has_the_transition_probabilities_and_leaves_p_stationary(1, boltzmann)
    test_boltzmann.test_gibbs_sampling_leaves_gaussian_units_stationary(boltzmann)


def partition_functions():
    test_partition.test_the_enumeration_is_the_sum_over_both_layers(4, 3, partition)
    for kind in ("binary", "gaussian"):
        test_partition.test_the_base_machine_has_the_partition_function_of_independent_units(kind)
        test_partition.test_in_one_step_a_log_weight_is_the_difference_of_the_free_energies(kind, partition)
    test_partition.test_the_ratio_is_the_logarithm_of_the_mean_weight_and_its_error_the_relative_one()


def weak_order_of_paths():
    test_sde.test_weak_order_on_a_process_that_is_driven("heun", 2)


def girsanov_s_theorem():
    test_sde.test_the_energy_is_the_kl_of_each_gaussian_step_of_the_two_chains()
    test_sde.test_both_integrals_add_up_to_the_log_ratio_of_the_two_chains_densities()
    test_sde.test_weights_have_the_mean_one_and_turn_controlled_paths_into_free_ones()
    test_sde.test_the_log_ratio_of_a_path_tends_to_that_of_its_ends_for_the_benes_process("heun")


def evidence_of_outcomes():
    test_path_posterior.test_weights_have_the_mean_p_x_for_several_outcomes_and_dimensions(1, 2)


def control_of_paths():
    test_path_posterior.test_paths_are_those_of_bridge_and_network_step_by_step()
    test_path_posterior.test_without_a_drift_a_new_model_has_the_exact_control_and_lacks_what_every_control_lacks(double_well)


def steps_of_langevin():
    test_langevin.test_the_variance_of_unadjusted_steps_is_too_large_by_a_known_factor(1.9, 0.4)


def detailed_balance():
    test_langevin.test_the_acceptance_is_the_ratio_of_densities_and_proposals(0.6)


def score_of_noisy_data():
    test_energy_ops.test_score_matching_is_least_at_the_score_of_the_noisy_data()


def density_of_an_energy():
    test_energy.test_log_Z_is_the_closed_form(1)
    test_energy.test_the_terms_are_what_they_are_called()


def values_of_potentials():
    test_potentials.test_values_that_are_known()
    for name in ("harmonic", "gaussians"):
        test_potentials.test_a_potential_equals_its_twin(name)


def cusps_and_their_energy():
    test_cusps.test_drifts_have_the_slopes_of_the_cusps_where_charges_meet(np.array([0.6, 0.0, 0.8]))
    test_quantum_systems.test_the_local_energy_is_that_of_the_base("helium", {})


def costs_of_the_best_drift():
    test_drift.test_with_the_best_drift_every_path_costs_the_same_but_for_its_ends()


def gradient_of_the_best_drift():
    test_drift.test_at_the_best_drift_the_gradient_vanishes_where_the_martingale_is_held()


def particles_that_are_exchanged():
    test_pair_features.test_the_drift_equals_its_twin(2, 2, True)
def best_critic():
    test_adversarial_ops.test_the_best_critic_is_the_log_ratio_of_the_densities()
    test_adversarial_ops.test_its_loss_is_log_4_minus_twice_the_Jensen_Shannon_divergence()
    test_adversarial_ops.test_the_minimax_game_has_zero_sum()


def slope_of_a_critic():
    test_adversarial_ops.test_a_linear_critic_of_slope_1_pays_nothing()


PROBABILITY_CHECKS = {
    "moments of samples": moments_of_samples,
    "KL by quadrature": KL_by_quadrature,
    "Bernoulli sums to 1": bernoulli_sums_to_1,
    "Bernoulli mean": bernoulli_mean_by_enumeration,
    "Gaussian integrates to 1": gaussian_integrates_to_1,
    "ELBO of the exact posterior": ELBO_of_the_exact_posterior,
    "IWAE of the exact posterior": IWAE_of_the_exact_posterior,
    "exact posterior of a chain": exact_posterior_of_a_chain,
    "moments of a chain": moments_of_a_chain,
    "latents of a diffusion": latents_of_a_diffusion,
    "terms of a diffusion": terms_of_a_diffusion,
    "both ELBOs of a diffusion": both_decompositions_of_a_diffusion,
    "prior of a pixel": prior_of_a_pixel,
    "free energies of a machine": free_energies_of_a_machine,
    "Gibbs sampling": gibbs_sampling,
    "partition functions": partition_functions,
    "weak order of paths": weak_order_of_paths,
    "Girsanov's theorem": girsanov_s_theorem,
    "evidence of outcomes": evidence_of_outcomes,
    "control of paths": control_of_paths,
    "steps of Langevin": steps_of_langevin,
    "detailed balance": detailed_balance,
    "score of noisy data": score_of_noisy_data,
    "density of an energy": density_of_an_energy,
    "values of potentials": values_of_potentials,
    "cusps and their energy": cusps_and_their_energy,
    "costs of the best drift": costs_of_the_best_drift,
    "gradient of the best drift": gradient_of_the_best_drift,
    "particles exchanged": particles_that_are_exchanged,
    "best critic": best_critic,
    "slope of a critic": slope_of_a_critic,
}

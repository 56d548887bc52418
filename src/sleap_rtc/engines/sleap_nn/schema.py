"""What a worker takes from a sleap-nn configuration: every key by name, type and range.

The keys are those that sleap-nn 0.3 and SLEAP write. Three kinds of them never
come from outside: what names files, ports, accounts or devices is set by the
worker (:class:`~sleap_rtc.engines.rules.ByWorker`), what would load weights by
path is refused, because the trainer unpickles such files, and text is never free
text, because OmegaConf replaces ``${…}`` in it.
"""

from __future__ import annotations

from typing import Final

from sleap_rtc.engines.rules import (
    ByWorker,
    Choice,
    Either,
    Flag,
    Name,
    Names,
    Nothing,
    Number,
    Numbers,
    Schema,
    Word,
)

_WORKER: Final = ByWorker()
_FLAG: Final = Flag()
_SHARE: Final = Number(0, 1)
_FACTOR: Final = Number(0, 1_000)
_PIXELS: Final = Number(1, 65_536, integer=True)
_WEIGHT: Final = Number(0, 1e6)
_STRIDE: Final = Number(1, 256, integer=True)
_SIGMA: Final = Number(0.01, 1_000)
_PATH_WEIGHTS: Final = Nothing(
    "weights can't be named by path: the trainer would run what is in the file"
)


def _not_taken(what: str) -> Nothing:
    return Nothing(f"this worker does not train {what}")


_LOADER: Final[Schema] = {
    "batch_size": Number(1, 4_096, integer=True),
    "shuffle": _FLAG,
    "num_workers": Either((Number(0, 16, integer=True), Choice(("auto",)))),
}

_INTENSITY: Final[Schema] = {
    "uniform_noise_min": _FACTOR,
    "uniform_noise_max": _FACTOR,
    "uniform_noise_p": _SHARE,
    "gaussian_noise_mean": Number(-1_000, 1_000),
    "gaussian_noise_std": _FACTOR,
    "gaussian_noise_p": _SHARE,
    "contrast_min": _FACTOR,
    "contrast_max": _FACTOR,
    "contrast_p": _SHARE,
    "brightness_min": _FACTOR,
    "brightness_max": _FACTOR,
    "brightness_p": _SHARE,
}

_GEOMETRIC: Final[Schema] = {
    "rotation_min": Number(-360, 360),
    "rotation_max": Number(-360, 360),
    "rotation_p": _SHARE,
    "scale_min": Number(0.01, 100),
    "scale_max": Number(0.01, 100),
    "scale_p": _SHARE,
    "translate_width": Number(-1, 1),
    "translate_height": Number(-1, 1),
    "translate_p": _SHARE,
    "affine_p": _SHARE,
    "erase_scale_min": _SHARE,
    "erase_scale_max": _SHARE,
    "erase_ratio_min": Number(0.001, 1_000),
    "erase_ratio_max": Number(0.001, 1_000),
    "erase_p": _SHARE,
    "mixup_lambda_min": _SHARE,
    "mixup_lambda_max": _SHARE,
    "mixup_p": _SHARE,
    "flip_p": _SHARE,
}

_TILING: Final[Schema] = {
    "enabled": _FLAG,
    "tile_size": _PIXELS,
    "overlap": Number(0, 65_536, integer=True),
    "min_overlap_fraction": _SHARE,
    "blend": Word(),
    "sigma_scale": _FACTOR,
    "tile_batch_size": Number(1, 4_096, integer=True),
    "accumulator_device": _WORKER,
    "cpu_thresh": _SHARE,
    "sampling": Choice(("foreground", "grid")),
    "tile_fg_fraction": _SHARE,
    "samples_per_frame": Number(1, 10_000, integer=True),
    "center_jitter": _SHARE,
    "min_visible_keypoints": Number(0, 1_000, integer=True),
    "steps_per_epoch": Number(1, 1_000_000, integer=True),
    "full_frame_pass": _FLAG,
}

_DATA: Final[Schema] = {
    "train_labels_path": _WORKER,
    "val_labels_path": _WORKER,
    "test_file_path": _WORKER,
    "validation_fraction": Number(0, 0.99),
    "use_same_data_for_val": _FLAG,
    "provider": Choice(("LabelsReader",)),
    "user_instances_only": _FLAG,
    "data_pipeline_fw": Choice(
        ("torch_dataset", "torch_dataset_cache_img_memory", "torch_dataset_cache_img_disk")
    ),
    "cache_img_path": _WORKER,
    "use_existing_imgs": _WORKER,
    "delete_cache_imgs_after_training": _WORKER,
    "parallel_caching": _FLAG,
    "cache_workers": Number(0, 16, integer=True),
    "preprocessing": {
        "ensure_rgb": _FLAG,
        "ensure_grayscale": _FLAG,
        "max_height": _PIXELS,
        "max_width": _PIXELS,
        "scale": Number(0.01, 10),
        "crop_size": _PIXELS,
        "min_crop_size": _PIXELS,
        "crop_padding": Number(0, 65_536, integer=True),
        "crop_mode": Choice(("fixed", "bbox")),
        "crop_bbox_aspect": Word(),
        "crop_bbox_padding": _FACTOR,
        "crop_bbox_min_size": Number(0, 65_536),
        "tiling": _TILING,
        "burn_in": _FLAG,
        "background_fill": Word(),
        "crop_centering": Word(),
    },
    "use_augmentations_train": _FLAG,
    "augmentation_config": {"intensity": _INTENSITY, "geometric": _GEOMETRIC},
    "use_negative_frames": _FLAG,
    "negative_loss_weight": _WEIGHT,
    # Read again from the labels, which are what is trained on.
    "skeletons": _WORKER,
    "identity": {
        "tracks_are_proofread": _FLAG,
        "track_names_are_global": _FLAG,
        "detections_deduplicated": _FLAG,
    },
    "split": {
        "split_by": Word(),
        "n_folds": Number(2, 1_000, integer=True),
        "fold": Number(0, 1_000, integer=True),
        "seed": Number(0, 2**31 - 1, integer=True),
    },
    "centroids_from_masks": Word(),
    "bbox_source": Word(),
    "bbox_padding": _FACTOR,
}

_UNET: Final[Schema] = {
    "in_channels": Number(1, 16, integer=True),
    "kernel_size": Number(1, 31, integer=True),
    "filters": Number(1, 1_024, integer=True),
    "filters_rate": Number(1, 8),
    "max_stride": _STRIDE,
    "stem_stride": _STRIDE,
    "middle_block": _FLAG,
    "up_interpolate": _FLAG,
    "stacks": Number(1, 8, integer=True),
    "convs_per_block": Number(1, 8, integer=True),
    "output_stride": _STRIDE,
}

_ENCODER: Final[Schema] = {
    "model_type": Word(),
    "arch": {
        "depths": Numbers(Number(1, 100, integer=True)),
        "channels": Numbers(Number(1, 4_096, integer=True)),
        "embed": Number(1, 4_096, integer=True),
        "num_heads": Numbers(Number(1, 256, integer=True)),
    },
    "stem_patch_kernel": Number(1, 31, integer=True),
    "stem_patch_stride": _STRIDE,
    "patch_size": Number(1, 64, integer=True),
    "window_size": Number(1, 64, integer=True),
    "in_channels": Number(1, 16, integer=True),
    "kernel_size": Number(1, 31, integer=True),
    "filters_rate": Number(1, 8),
    "convs_per_block": Number(1, 8, integer=True),
    "up_interpolate": _FLAG,
    "output_stride": _STRIDE,
    "max_stride": _STRIDE,
}
# Names of published weights, which torchvision fetches and checks by hash; nothing else.
_CONVNEXT: Final[Schema] = {
    **_ENCODER,
    "pre_trained_weights": Choice(
        tuple(f"ConvNeXt_{size}_Weights" for size in ("Tiny", "Small", "Base", "Large"))
    ),
}
_SWINT: Final[Schema] = {
    **_ENCODER,
    "pre_trained_weights": Choice(tuple(f"Swin_{size}_Weights" for size in ("T", "S", "B"))),
}

_ANCHOR: Final[Schema] = {
    "anchor_part": Name(),
    "centroid_method": Word(),
    "centroid_fallback": Word(),
}
_MAP: Final[Schema] = {"sigma": _SIGMA, "output_stride": _STRIDE}
_PARTS: Final[Schema] = {**_MAP, "part_names": Names()}
_CENTERED: Final[Schema] = {**_PARTS, **_ANCHOR, "loss_weight": _WEIGHT}
_CLASSES: Final[Schema] = {
    "classes": Names(),
    "class_output": Word(),
    "output_stride": _STRIDE,
    "loss_weight": _WEIGHT,
}

_HEADS: Final[Schema] = {
    "single_instance": {"confmaps": _PARTS},
    "centroid": {
        "confmaps": {
            **_MAP,
            **_ANCHOR,
            "centroid_source": Word(),
            "use_sigmoid_activation": _FLAG,
            "focal_loss_alpha": _FACTOR,
            "focal_loss_beta": _FACTOR,
            "focal_loss_pos_threshold": _SHARE,
        }
    },
    "centered_instance": {"confmaps": _CENTERED},
    "bottomup": {
        "confmaps": {**_PARTS, "loss_weight": _WEIGHT},
        "pafs": {**_MAP, "edges": Names(pairs=True), "loss_weight": _WEIGHT},
    },
    "multi_class_bottomup": {
        "confmaps": {**_PARTS, "loss_weight": _WEIGHT},
        "class_maps": {**_CLASSES, "sigma": _SIGMA},
    },
    "multi_class_topdown": {
        "confmaps": _CENTERED,
        "class_vectors": {
            **_CLASSES,
            "num_fc_layers": Number(1, 16, integer=True),
            "num_fc_units": Number(1, 8_192, integer=True),
            "global_pool": _FLAG,
        },
    },
    "bottomup_segmentation": _not_taken("segmentation models"),
    "centered_instance_segmentation": _not_taken("segmentation models"),
    "semantic_segmentation": _not_taken("segmentation models"),
    "embedding": _not_taken("embedding models"),
    "bbox_centernet": _not_taken("box detectors"),
    "bbox_ssd": _not_taken("box detectors"),
}

_MODEL: Final[Schema] = {
    "init_weights": Choice(("default", "xavier")),
    "pretrained_backbone_weights": _PATH_WEIGHTS,
    "pretrained_head_weights": _PATH_WEIGHTS,
    "backbone_config": {
        "unet": _UNET,
        "convnext": _CONVNEXT,
        "swint": _SWINT,
        "pretrained": Nothing("weights from a hub are not fetched while training"),
    },
    "head_configs": _HEADS,
    "total_params": _WORKER,
}

_WARMUP: Final[Schema] = {
    "warmup_epochs": Number(0, 100_000, integer=True),
    "max_epochs": Number(1, 100_000, integer=True),
    "warmup_start_lr": Number(0, 10),
    "eta_min": Number(0, 10),
    "end_lr": Number(0, 10),
}

_TRAINER: Final[Schema] = {
    "train_data_loader": _LOADER,
    "val_data_loader": _LOADER,
    "model_ckpt": _WORKER,
    "trainer_devices": _WORKER,
    "trainer_device_indices": _WORKER,
    "trainer_accelerator": _WORKER,
    "profiler": _WORKER,
    "trainer_strategy": _WORKER,
    "enable_progress_bar": _WORKER,
    "min_train_steps_per_epoch": Number(1, 1_000_000, integer=True),
    "train_steps_per_epoch": Number(1, 1_000_000, integer=True),
    "visualize_preds_during_training": _FLAG,
    "keep_viz": _FLAG,
    "viz_img_format": Choice(("png", "jpg")),
    "max_epochs": Number(1, 100_000, integer=True),
    "seed": Number(0, 2**31 - 1, integer=True),
    "use_wandb": _WORKER,
    "wandb": _WORKER,
    "save_ckpt": _WORKER,
    "ckpt_dir": _WORKER,
    "run_name": _WORKER,
    "resume_ckpt_path": Nothing(
        "a checkpoint can't be named by path: the trainer would run what is in the file"
    ),
    "optimizer_name": Choice(("Adam", "AdamW")),
    "optimizer": {"lr": Number(1e-12, 10), "amsgrad": _FLAG},
    "lr_scheduler": {
        "step_lr": {"step_size": Number(1, 100_000, integer=True), "gamma": Number(0, 10)},
        "reduce_lr_on_plateau": {
            "threshold": Number(0, 1e6),
            "threshold_mode": Choice(("abs", "rel")),
            "cooldown": Number(0, 100_000, integer=True),
            "patience": Number(0, 100_000, integer=True),
            "factor": Number(0, 1),
            "min_lr": Either((Number(0, 10), Numbers(Number(0, 10)))),
        },
        "cosine_annealing_warmup": _WARMUP,
        "linear_warmup_linear_decay": _WARMUP,
    },
    "early_stopping": {
        "min_delta": Number(0, 1e6),
        "patience": Number(0, 100_000, integer=True),
        "stop_training_on_plateau": _FLAG,
    },
    "online_hard_keypoint_mining": {
        "online_mining": _FLAG,
        "hard_to_easy_ratio": _FACTOR,
        "min_hard_keypoints": Number(0, 1_000, integer=True),
        "max_hard_keypoints": Number(0, 1_000, integer=True),
        "loss_scale": _FACTOR,
    },
    "zmq": _WORKER,
    "eval": {
        "enabled": _FLAG,
        "frequency": Number(1, 100_000, integer=True),
        "oks_stddev": Number(1e-6, 1e3),
        "oks_scale": Number(0, 1e9),
        "match_threshold": Number(1e-6, 1e6),
        "select_metric": Word(),
    },
}

TRAINING: Final[Schema] = {
    "data_config": _DATA,
    "model_config": _MODEL,
    "trainer_config": _TRAINER,
    "name": _WORKER,
    "description": _WORKER,
    "sleap_nn_version": _WORKER,
    "filename": _WORKER,
}

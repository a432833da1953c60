# fmt: off
# Fast R-CNN with masks on proposals from a file: ResNet-50 with a feature pyramid, 12 epochs on COCO 2017.

# What the detector is made of.
model = dict(
    type='FastRCNN',
    pretrained='modelzoo://resnet50',
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        style='pytorch',
    ),
    neck=dict(
        type='FPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        num_outs=5,
    ),
    bbox_roi_extractor=dict(
        type='SingleRoIExtractor',
        roi_layer=dict(
            type='RoIAlign',
            out_size=7,
            sample_num=2,
        ),
        out_channels=256,
        featmap_strides=[4, 8, 16, 32],
    ),
    bbox_head=dict(
        type='SharedFCBBoxHead',
        num_fcs=2,
        in_channels=256,
        fc_out_channels=1024,
        roi_feat_size=7,
        num_classes=81,
        target_means=[0., 0., 0., 0.],
        target_stds=[0.1, 0.1, 0.2, 0.2],
        reg_class_agnostic=False,
    ),
    mask_roi_extractor=dict(
        type='SingleRoIExtractor',
        roi_layer=dict(
            type='RoIAlign',
            out_size=14,
            sample_num=2,
        ),
        out_channels=256,
        featmap_strides=[4, 8, 16, 32],
    ),
    mask_head=dict(
        type='FCNMaskHead',
        num_convs=4,
        in_channels=256,
        conv_out_channels=256,
        num_classes=81,
    ),
)

# How candidates are chosen and compared in training and at test time.
train_cfg = dict(
    rcnn=dict(
        assigner=dict(
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.5,
            ignore_iof_thr=-1,
        ),
        sampler=dict(
            num=512,
            pos_fraction=0.25,
            neg_pos_ub=-1,
            add_gt_as_proposals=True,
            pos_balance_sampling=False,
            neg_balance_thr=0,
        ),
        mask_size=28,
        pos_weight=-1,
        debug=False,
    ),
)
test_cfg = dict(
    rcnn=dict(
        score_thr=0.05,
        nms_thr=0.5,
        max_per_img=100,
        mask_thr_binary=0.5,
    ),
)

# Images and their preparation.
dataset_type = 'CocoDataset'
data_root = 'data/coco/'
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
data = dict(
    imgs_per_gpu=2,
    workers_per_gpu=2,
    train=dict(
        type=dataset_type,
        ann_file=data_root + 'annotations/instances_train2017.json',
        img_prefix=data_root + 'train2017/',
        img_scale=(1333, 800),
        img_norm_cfg=img_norm_cfg,
        size_divisor=32,
        proposal_file=data_root + 'proposals/rpn_r50_fpn_1x_train2017.pkl',
        flip_ratio=0.5,
        with_mask=True,
        with_crowd=True,
        with_label=True,
    ),
    val=dict(
        type=dataset_type,
        ann_file=data_root + 'annotations/instances_val2017.json',
        img_prefix=data_root + 'val2017/',
        img_scale=(1333, 800),
        img_norm_cfg=img_norm_cfg,
        size_divisor=32,
        proposal_file=data_root + 'proposals/rpn_r50_fpn_1x_val2017.pkl',
        flip_ratio=0,
        with_mask=True,
        with_crowd=True,
        with_label=True,
    ),
    test=dict(
        type=dataset_type,
        ann_file=data_root + 'annotations/instances_val2017.json',
        img_prefix=data_root + 'val2017/',
        img_scale=(1333, 800),
        img_norm_cfg=img_norm_cfg,
        size_divisor=32,
        proposal_file=data_root + 'proposals/rpn_r50_fpn_1x_val2017.pkl',
        flip_ratio=0,
        with_mask=False,
        with_label=False,
        test_mode=True,
    ),
)

# Training: SGD for 8 processes of 2 images.
optimizer = dict(
    type='SGD',
    lr=0.02,
    momentum=0.9,
    weight_decay=0.0001,
)
optimizer_config = dict(
    grad_clip=dict(
        max_norm=35,
        norm_type=2,
    ),
)
lr_config = dict(
    policy='step',
    warmup='linear',
    warmup_iters=500,
    warmup_ratio=1.0 / 3,
    step=[8, 11],
)
checkpoint_config = dict(
    interval=1,
)
log_config = dict(
    interval=50,
    hooks=[
        dict(type='TextLoggerHook'),
    ],
)
total_epochs = 12
dist_params = dict(
    backend='nccl',
)
log_level = 'INFO'
work_dir = './work_dirs/fast_mask_rcnn_r50_fpn_1x'
load_from = None
resume_from = None
workflow = [('train', 1)]
